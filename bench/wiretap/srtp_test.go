package wiretap_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"

	"github.com/domicile/domicile/bench/wiretap"
)

// sealing is one end of a session of DTLS-SRTP.
type sealing struct {
	conn *dtls.Conn
	out  *srtp.Context
}

// shakeHands has two sockets agree on keys; what passed the client's is in tap.
func shakeHands(t *testing.T, profile dtls.SRTPProtectionProfile, log *lockedBuffer) (tap *tapped, client, server sealing) {
	t.Helper()
	var sockets [2]net.PacketConn
	for i := range sockets {
		var err error
		if sockets[i], err = net.ListenPacket("udp4", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { sockets[i].Close() })
	}
	tap = &tapped{PacketConn: sockets[0]}
	config := func() *dtls.Config {
		return &dtls.Config{Certificates: []tls.Certificate{serverConfig(t).Certificates[0]}, InsecureSkipVerify: true, KeyLogWriter: log,
			SRTPProtectionProfiles: []dtls.SRTPProtectionProfile{profile}, ExtendedMasterSecret: dtls.RequireExtendedMasterSecret}
	}
	a, err := dtls.Client(tap, sockets[1].LocalAddr(), config())
	if err != nil {
		t.Fatal(err)
	}
	b, err := dtls.Server(sockets[1], sockets[0].LocalAddr(), config())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var both sync.WaitGroup
	both.Go(func() {
		if err := b.HandshakeContext(ctx); err != nil {
			t.Error(err)
		}
	})
	if err := a.HandshakeContext(ctx); err != nil {
		t.Fatal(err)
	}
	both.Wait()
	return tap, sealer(t, a, true), sealer(t, b, false)
}

func sealer(t *testing.T, conn *dtls.Conn, client bool) sealing {
	t.Helper()
	profile, _ := conn.SelectedSRTPProtectionProfile()
	state, ok := conn.ConnectionState()
	cfg := srtp.Config{Profile: srtp.ProtectionProfile(profile)}
	if err := cfg.ExtractSessionKeysFromDTLS(&state, client); err != nil || !ok {
		t.Fatal(err)
	}
	out, err := srtp.CreateContext(cfg.Keys.LocalMasterKey, cfg.Keys.LocalMasterSalt, cfg.Profile)
	if err != nil {
		t.Fatal(err)
	}
	return sealing{conn, out}
}

// says seals an RTP packet.
func (s sealing) says(t *testing.T, ssrc uint32, seq uint16, words string) []byte {
	t.Helper()
	p, err := (&rtp.Packet{Header: rtp.Header{Version: 2, PayloadType: 96, SSRC: ssrc, SequenceNumber: seq}, Payload: []byte(words)}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := s.out.EncryptRTP(nil, p, nil)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

// TestOpensMedia opens what both ends send after a handshake that was captured, bare and
// in channel data, over the wrap of sequence numbers.
func TestOpensMedia(t *testing.T) {
	for _, profile := range []dtls.SRTPProtectionProfile{dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AES128_CM_HMAC_SHA1_80} {
		var log lockedBuffer
		tap, client, server := shakeHands(t, profile, &log)
		m, blind := wiretap.NewMedia(), wiretap.NewMedia()
		m.Learn(log.b.Bytes())
		tap.mu.Lock()
		for _, p := range append(tap.seen[:1:1], tap.seen...) { // the first hello twice
			m.Open(p.src, p.dst, p.b)
			blind.Open(p.src, p.dst, p.b)
		}
		tap.mu.Unlock()
		from, to := addrPort(client.conn.LocalAddr()), addrPort(server.conn.LocalAddr())
		for i := range uint16(20) {
			seq := 65530 + i
			sealed := client.says(t, 1, seq, "what the client says")
			wrapped := append(binary.BigEndian.AppendUint16([]byte{0x40, 1}, uint16(len(sealed))), sealed...)
			if i%2 == 0 {
				wrapped = sealed
			}
			if plain, ok := m.Open(from, to, wrapped); !ok || !bytes.Contains(plain, []byte("what the client says")) {
				t.Fatalf("%v: packet %d of the client: %q, %v", profile, seq, plain, ok)
			}
			if plain, ok := m.Open(to, from, server.says(t, 2, seq, "what the server says")); !ok || !bytes.Contains(plain, []byte("what the server says")) {
				t.Fatalf("%v: packet %d of the server: %q, %v", profile, seq, plain, ok)
			}
		}
		if m.Opened != 40 || m.Closed != 0 {
			t.Errorf("%v: opened %d, closed %d", profile, m.Opened, m.Closed)
		}
		if _, ok := blind.Open(from, to, client.says(t, 1, 20, "secret")); ok || blind.Closed != 1 {
			t.Errorf("%v: opened without secrets", profile)
		}
		client.conn.Close()
		server.conn.Close()
	}
}
