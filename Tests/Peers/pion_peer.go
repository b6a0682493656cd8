// A caller made of Pion: posts an offer to the address in its first argument, sends an Opus packet of silence every 20 ms, and a data channel for
// events. Each line of its input goes out as one message; what happens comes out as lines of JSON: {"state": …}, {"open": true}, {"text": …},
// {"packets": …}, {"error": …}. The end of its input ends the call.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/pion/ice/v2"
	"github.com/pion/webrtc/v3"
	"github.com/pion/webrtc/v3/pkg/media"
)

var output sync.Mutex

func tell(name string, value interface{}) {
	line, _ := json.Marshal(map[string]interface{}{name: value})
	output.Lock()
	defer output.Unlock()
	fmt.Println(string(line))
}

func main() {
	if err := call(os.Args[1]); err != nil {
		tell("error", err.Error())
		os.Exit(1)
	}
}

func call(address string) error {
	var settings webrtc.SettingEngine
	settings.SetIncludeLoopbackCandidate(true)
	settings.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	var codecs webrtc.MediaEngine
	if err := codecs.RegisterDefaultCodecs(); err != nil {
		return err
	}
	peer, err := webrtc.NewAPI(webrtc.WithSettingEngine(settings), webrtc.WithMediaEngine(&codecs)).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		return err
	}
	defer peer.Close()
	peer.OnConnectionStateChange(func(state webrtc.PeerConnectionState) { tell("state", state.String()) })
	peer.OnTrack(func(track *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		for count := 1; ; count++ {
			if _, _, err := track.ReadRTP(); err != nil {
				return
			}
			if count%25 == 0 {
				tell("packets", count)
			}
		}
	})
	voice, err := webrtc.NewTrackLocalStaticSample(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus}, "audio", "voice")
	if err != nil {
		return err
	}
	if _, err = peer.AddTrack(voice); err != nil {
		return err
	}
	channel, err := peer.CreateDataChannel("oai-events", nil)
	if err != nil {
		return err
	}
	channel.OnOpen(func() { tell("open", true) })
	channel.OnMessage(func(message webrtc.DataChannelMessage) { tell("text", string(message.Data)) })
	if err = join(peer, address); err != nil {
		return err
	}
	go speak(voice)
	lines := bufio.NewReader(os.Stdin)
	for {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = channel.SendText(strings.TrimSuffix(line, "\n"))
		}
		if err != nil {
			return err
		}
	}
}

// The offer names no candidates, as browsers send it: the server needs none.
func join(peer *webrtc.PeerConnection, address string) error {
	offer, err := peer.CreateOffer(nil)
	if err != nil {
		return err
	}
	if err = peer.SetLocalDescription(offer); err != nil {
		return err
	}
	response, err := http.Post(address, "application/sdp", strings.NewReader(offer.SDP))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusCreated {
		return fmt.Errorf("the offer was answered with %s: %s", response.Status, answer)
	}
	return peer.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: string(answer)})
}

func speak(voice *webrtc.TrackLocalStaticSample) {
	for range time.Tick(20 * time.Millisecond) {
		if voice.WriteSample(media.Sample{Data: []byte{0xF8, 0xFF, 0xFE}, Duration: 20 * time.Millisecond}) != nil {
			return
		}
	}
}
