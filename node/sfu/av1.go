package sfu

// keyframeAV1 reads the aggregation header of the AV1 RTP payload, of streams
// without a dependency descriptor: N marks the first packet of a coded video
// sequence, Z a continued fragment.
//
//	|Z|Y| W |N|-|-|-|
func keyframeAV1(b []byte) bool {
	const z, n = 0x80, 0x08
	return len(b) > 0 && b[0]&n != 0 && b[0]&z == 0
}
