package sfu

// ddFixed is the length of the part that every dependency descriptor has.
const ddFixed = 3

const (
	maxTemplates = 64 // their ids have six bits
	maxTargets   = 32 // their count has five
)

// frame is what the dependency descriptor of a packet says.
type frame struct {
	begins, ends      bool
	structure         bool // it brings the structure of what follows: a keyframe
	number            uint16
	spatial, temporal uint8
	up                [MaxLayers]uint8 // decode targets to switch to, as in descriptor
}

// dependencies reads the dependency descriptors of one stream (Appendix A of
// AV1's RTP payload format), which refer to the structure that the last keyframe
// brought:
//
//	|S|E|template id| frame number, 16 bits |   every packet
//	|s|a|d|f|c|                                 if longer: what follows is there
//	  s: structure: id offset 6, targets-1 5, templates until 3:
//	     layer step 2 each; per template and target: indication 2;
//	     per template: frame differences (1, 4)*, 0; chains; resolutions
//	  a: active decode targets, a bit each
//	  d: decode target indications of this frame, 2 bits each
//	  f: frame differences, c: chains              of no use here
//
// What cannot be read leaves the structure as it was. Those before it are kept, the
// newest first, for packets that keyframes overtook.
type dependencies struct {
	now    structure
	before [3]structure
}

// structure is what a keyframe says of the frames that follow.
type structure struct {
	known     bool
	offset    uint8
	targets   int
	templates int
	layer     [maxTemplates]struct{ spatial, temporal uint8 }
	dtis      [maxTemplates]uint64 // two bits for each target
	target    [maxTargets]struct{ spatial, temporal uint8 }
}

// indications of a decode target (section A.8.2.1 there): not present,
// discardable, switch, required.
const dtiSwitch = 2

// bitReader reads big-endian bits; past the end it reads zeros and says so.
type bitReader struct {
	b    []byte
	at   int // in bits
	over bool
}

func (r *bitReader) read(n int) (v uint32) {
	for range n {
		v <<= 1
		if r.at>>3 >= len(r.b) {
			r.over = true
			continue
		}
		v |= uint32(r.b[r.at>>3]>>(7-r.at&7)) & 1
		r.at++
	}
	return v
}

func (r *bitReader) flag() bool { return r.read(1) != 0 }

// below reads a value less than n in the non-symmetric code ns(n).
func (r *bitReader) below(n uint32) uint32 {
	width, x := 0, n
	for x != 0 {
		x >>= 1
		width++
	}
	if width == 0 {
		return 0
	}
	short := uint32(1)<<width - n
	v := r.read(width - 1)
	if v < short {
		return v
	}
	return v<<1 - short + r.read(1)
}

// parse reads the descriptor of a packet, which has at least ddFixed bytes. It
// reports false if the frame's layers cannot be told.
func (d *dependencies) parse(b []byte) (f frame, ok bool) {
	f = frame{begins: b[0]&0x80 != 0, ends: b[0]&0x40 != 0, number: uint16(b[1])<<8 | uint16(b[2])}
	r := bitReader{b: b[ddFixed:]}
	var active, custom bool
	if len(b) > ddFixed {
		f.structure, active, custom = r.flag(), r.flag(), r.flag()
		r.read(2)
	}
	if f.structure {
		var next structure
		if !next.parse(&r) {
			return f, false
		}
		if next.offset != d.now.offset {
			copy(d.before[1:], d.before[:])
			d.before[0] = d.now
		}
		d.now = next
	}
	template := b[0] & 0x3f
	of := &d.now
	for i := range d.before {
		if !of.has(template) {
			of = &d.before[i]
		}
	}
	return f, of.resolve(&f, template, active, custom, &r)
}

func (d *structure) has(template uint8) bool {
	return d.known && int(template-d.offset)&(maxTemplates-1) < d.templates
}

// resolve fills in what the frame's template, or the descriptor itself, says.
func (d *structure) resolve(f *frame, template uint8, active, custom bool, r *bitReader) bool {
	if !d.has(template) {
		return false
	}
	if active {
		r.read(d.targets)
	}
	i := int(template-d.offset) & (maxTemplates - 1)
	f.spatial, f.temporal = d.layer[i].spatial, d.layer[i].temporal
	dtis := d.dtis[i]
	if custom {
		if dtis = d.readIndications(r); r.over {
			return false
		}
	}
	for k := range d.targets {
		if t := d.target[k]; dtis>>(2*k)&3 == dtiSwitch && t.spatial < MaxLayers {
			f.up[t.spatial] |= 1 << min(t.temporal, MaxTemporal-1)
		}
	}
	return true
}

func (d *structure) readIndications(r *bitReader) (dtis uint64) {
	for k := range d.targets {
		dtis |= uint64(r.read(2)) << (2 * k)
	}
	return dtis
}

func (d *structure) parse(r *bitReader) bool {
	d.offset = uint8(r.read(6))
	d.targets = int(r.read(5)) + 1
	if !d.parseLayers(r) {
		return false
	}
	for i := range d.templates {
		d.dtis[i] = d.readIndications(r)
	}
	for range d.templates { // frame differences
		for r.flag() {
			r.read(4)
		}
	}
	d.skipChains(r)
	if r.flag() { // resolutions
		r.read(32 * (int(d.layer[d.templates-1].spatial) + 1))
	}
	d.findTargets()
	d.known = !r.over
	return d.known
}

func (d *structure) parseLayers(r *bitReader) bool {
	const same, temporal, spatial = 0, 1, 2
	layer := d.layer[0]
	for !r.over && d.templates < maxTemplates {
		d.layer[d.templates] = layer
		d.templates++
		switch r.read(2) {
		case same:
		case temporal:
			layer.temporal++
		case spatial:
			layer.temporal = 0
			layer.spatial++
		default:
			return true
		}
	}
	return false
}

func (d *structure) skipChains(r *bitReader) {
	chains := r.below(uint32(d.targets) + 1)
	if chains == 0 {
		return
	}
	for range d.targets {
		r.below(chains) // protected by
	}
	r.read(4 * int(chains) * d.templates)
}

// findTargets notes what each decode target decodes: the highest layers of the
// frames that it contains.
func (d *structure) findTargets() {
	for i := range d.templates {
		for k := range d.targets {
			if d.dtis[i]>>(2*k)&3 != 0 {
				t := &d.target[k]
				t.spatial = max(t.spatial, d.layer[i].spatial)
				t.temporal = max(t.temporal, d.layer[i].temporal)
			}
		}
	}
}
