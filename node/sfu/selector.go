package sfu

// ceiling is up to which layers a receiver gets the packets of a stream: spatial
// counts in the stream's own layers, so it means something for SVC only.
type ceiling struct {
	spatial  uint8
	temporal uint8
}

// admits reports whether the packet is sent.
func (c ceiling) admits(p *Packet) bool {
	return p.desc.spatial <= c.spatial && p.Temporal <= c.temporal
}

// after returns the ceiling from a packet on, given the one that is wanted. fresh
// says that the packet is the first of its picture.
//
// Down is possible with any picture, since no layer depends on those above it.
// Up is possible only where a decoder can follow:
//   - a keyframe, to anywhere;
//   - a frame whose dependency descriptor has a switch indication for a higher
//     decode target, if the frame itself is sent;
//   - one temporal layer, at a frame that depends only on those below (VP8's Y,
//     VP9's U as encoders set it);
//   - one spatial layer, at a frame of VP9 that depends on no earlier picture.
func (c ceiling) after(p *Packet, want ceiling, fresh bool) ceiling {
	if p.Keyframe {
		return want
	}
	if fresh {
		c = ceiling{min(c.spatial, want.spatial), min(c.temporal, want.temporal)}
	}
	if c == want || !p.desc.begins {
		return c
	}
	if c.admits(p) {
		return c.indicated(&p.desc.up, want)
	}
	d := &p.desc
	switch {
	case d.sync && d.spatial == 0 && p.Temporal == c.temporal+1 && p.Temporal <= want.temporal:
		c.temporal++
	case d.intra && d.spatial == c.spatial+1 && d.spatial <= want.spatial && p.Temporal <= c.temporal:
		c.spatial++
	}
	return c
}

// indicated returns the highest decode target up to want that a sent frame
// allows to switch to.
func (c ceiling) indicated(up *[MaxLayers]uint8, want ceiling) ceiling {
	for s := min(want.spatial, MaxLayers-1) + 1; s > c.spatial; s-- {
		for t := want.temporal + 1; t > c.temporal; t-- {
			if up[s-1]&(1<<(t-1)) != 0 {
				return ceiling{s - 1, t - 1}
			}
		}
	}
	return c
}
