// A server made of Pion for `swiftlet bench calls --server-program`: audio goes back as it came, and so does what the data channel carries.
// One UDP port, ICE lite, as few features as the job needs: what Pion costs when it is used for what Swiftlet is for.
package main

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/pion/ice/v2"
	"github.com/pion/webrtc/v3"
)

type server struct {
	api   *webrtc.API
	mutex sync.Mutex
	calls map[string]*webrtc.PeerConnection
	next  int
}

func main() {
	media, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	check(err)
	_ = media.SetReadBuffer(4 << 20)
	_ = media.SetWriteBuffer(4 << 20)
	var settings webrtc.SettingEngine
	settings.SetLite(true)
	settings.SetIncludeLoopbackCandidate(true)
	settings.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	settings.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	settings.SetICEUDPMux(webrtc.NewICEUDPMux(nil, media))
	check(settings.SetAnsweringDTLSRole(webrtc.DTLSRoleClient))
	var codecs webrtc.MediaEngine
	check(codecs.RegisterCodec(webrtc.RTPCodecParameters{
		RTPCodecCapability: webrtc.RTPCodecCapability{
			MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2, SDPFmtpLine: "minptime=10;useinbandfec=1",
		},
		PayloadType: 111,
	}, webrtc.RTPCodecTypeAudio))
	s := &server{
		api:   webrtc.NewAPI(webrtc.WithSettingEngine(settings), webrtc.WithMediaEngine(&codecs)),
		calls: map[string]*webrtc.PeerConnection{},
	}
	signaling, err := net.Listen("tcp4", "127.0.0.1:0")
	check(err)
	fmt.Printf("ready: http://%s, media %s\n", signaling.Addr(), media.LocalAddr())
	check(http.Serve(signaling, s))
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	const resource = "/v1/realtime/calls"
	switch {
	case r.Method == http.MethodPost && r.URL.Path == resource:
		offer, err := io.ReadAll(io.LimitReader(r.Body, 65536))
		if err == nil {
			var name, answer string
			if name, answer, err = s.place(string(offer)); err == nil {
				w.Header().Set("Location", resource+"/"+name)
				w.Header().Set("Content-Type", "application/sdp")
				w.WriteHeader(http.StatusCreated)
				_, _ = io.WriteString(w, answer)
				return
			}
		}
		http.Error(w, err.Error(), http.StatusBadRequest)
	case r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/hangup"):
		name := strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, resource+"/"), "/hangup")
		s.mutex.Lock()
		call := s.calls[name]
		delete(s.calls, name)
		s.mutex.Unlock()
		if call == nil {
			http.NotFound(w, r)
			return
		}
		_ = call.Close()
	default:
		http.NotFound(w, r)
	}
}

func (s *server) place(offer string) (name, answer string, err error) {
	call, err := s.api.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		return "", "", err
	}
	defer func() {
		if err != nil {
			_ = call.Close()
		}
	}()
	echo, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus}, "audio", "echo")
	if err != nil {
		return "", "", err
	}
	sender, err := call.AddTrack(echo)
	if err != nil {
		return "", "", err
	}
	go func() {
		feedback := make([]byte, 1500)
		for {
			if _, _, err := sender.Read(feedback); err != nil {
				return
			}
		}
	}()
	call.OnTrack(func(track *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		packet := make([]byte, 1500)
		for {
			count, _, err := track.Read(packet)
			if err != nil {
				return
			}
			if _, err = echo.Write(packet[:count]); errors.Is(err, io.ErrClosedPipe) {
				return
			}
		}
	})
	call.OnDataChannel(func(channel *webrtc.DataChannel) {
		channel.OnMessage(func(message webrtc.DataChannelMessage) { _ = channel.Send(message.Data) })
	})
	if err = call.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: offer}); err != nil {
		return "", "", err
	}
	description, err := call.CreateAnswer(nil)
	if err != nil {
		return "", "", err
	}
	gathered := webrtc.GatheringCompletePromise(call)
	if err = call.SetLocalDescription(description); err != nil {
		return "", "", err
	}
	<-gathered
	s.mutex.Lock()
	s.next++
	name = fmt.Sprintf("rtc_%d", s.next)
	s.calls[name] = call
	s.mutex.Unlock()
	return name, call.LocalDescription().SDP, nil
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
