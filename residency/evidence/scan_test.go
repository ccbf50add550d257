package evidence

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/domicile/domicile/residency"
)

// What scanReceipt reads is what encoding/json wrote, and the other way round.
func TestReceiptsAreReadAsTheyAreWritten(t *testing.T) {
	chance := rand.New(rand.NewPCG(1, 2))
	hex := func(n int) string { return strings.Repeat(string("0123456789abcdef"[chance.IntN(16)]), n) }
	number := func() uint64 { return chance.Uint64() >> (11 + chance.IntN(53)) }
	for range 2000 {
		r := Receipt{Version: 1, Room: Pseudonym(hex(32)), Node: "fra", Certificate: Hash(hex(64)), Run: int64(number()), Seq: number(),
			Previous: Hash(hex(64 * chance.IntN(2))), Side: Sides()[chance.IntN(5)], Peer: "waw", PeerCertificate: Hash(hex(64)),
			Class: residency.Classes()[chance.IntN(9)], Policy: "a <b> & 'c'", Tenant: hex(chance.IntN(3)), Rule: "zone", Epoch: residency.Epoch(number()),
			Packets: number(), Bytes: number(), Lost: number(), LostBytes: number(), QA: chance.IntN(3) == 0, First: int64(number()), Last: int64(number()), Final: chance.IntN(2) == 0}
		b, err := encode(r)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := scanReceipt(b); err != nil || got != r {
			t.Fatalf("%s\nis read as %+v (%v)", b, got, err)
		}
	}
}

func FuzzReceipt(f *testing.F) {
	line := `{"version":1,"room":"` + strings.Repeat("0", 32) + `","node":"fra","certificate":"` + strings.Repeat("a", 64) +
		`","run":1795338000000,"seq":1,"previous":"","side":"sent","peer":"waw","peer_certificate":"` + strings.Repeat("b", 64) +
		`","class":"media","policy":"eea-only","tenant":"","rule":"zone","epoch":3,"packets":1,"bytes":2,"lost":0,"lost_bytes":0,"first":1795338000000,"last":1795338000001,"final":true} ` + strings.Repeat("0", 128)
	f.Add([]byte(line))
	f.Add([]byte(strings.Replace(line, `"seq":1`, `"seq":01`, 1)))
	f.Add([]byte(strings.Replace(line, `"class":"media"`, `"class":"chat","qa":true`, 1)))
	f.Add([]byte(strings.Replace(line, `"class":"media"`, `"class":"chat","qa":false`, 1)))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Peek(b)
		if err != nil {
			return
		}
		body, _, _ := split(b)
		var plain Receipt
		if err := json.Unmarshal(body, &plain); err != nil || plain != r {
			t.Fatalf("%s\nis %+v to us, %+v to others (%v)", body, r, plain, err)
		}
		if again, err := encode(r); err != nil || !bytes.Equal(again, body) {
			t.Fatalf("%s\nis written again as %s", body, again)
		}
	})
}

func FuzzFile(f *testing.F) {
	f.Add([]byte(fileHeader + "\nroom {\"sid\":\"RM_a\",\"key\":\"\",\"pseudonym\":\"\"}\nhead x\nproof []\nreceipt 0 x\nend x\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := ReadFile(b)
		if err != nil {
			return
		}
		body, err := file.body()
		if err != nil {
			t.Fatal(err)
		}
		if again := appendLine(body, "end", file.SignedEnd); !bytes.Equal(again, b) {
			t.Fatalf("%q\nis written again as %q", b, again)
		}
	})
}

func FuzzFrames(f *testing.F) {
	f.Add(appendFrame(nil, frameReceipt, []byte("x")))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, line, size, err := readFrame(b); err == nil && (size > len(b) || len(line) > MaxStatement) {
			t.Fatalf("a frame of %d bytes in %d", size, len(b))
		}
		holdsHead(b)
	})
}
