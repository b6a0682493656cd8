// A caller over WHIP (RFC 9725) for tests in browsers: microphone in, tone out, and an ICE restart on the way.
// The page does without restarts, so the tests bring this along. Evaluated as one expression; leaves window.WHIPCaller.

(window.WHIPCaller = class WHIPCaller {
  async start() {
    this.audio = new AudioContext();
    const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    this.microphone = await navigator.mediaDevices.getUserMedia({ audio: plain });
    this.peer = new RTCPeerConnection();
    this.peer.addTrack(this.microphone.getTracks()[0], this.microphone);
    this.peer.addEventListener("track", ({ streams }) => this.listen(streams[0]));
    await this.peer.setLocalDescription(await this.peer.createOffer());
    const response = await fetch("/whip", {
      method: "POST", headers: { "Content-Type": "application/sdp" }, body: this.peer.localDescription.sdp,
    });
    this.location = response.headers.get("Location");
    this.tag = response.headers.get("ETag");
    this.answer = await response.text();
    if (response.status === 201) await this.peer.setRemoteDescription({ type: "answer", sdp: this.answer });
    return { status: response.status, location: this.location, tag: this.tag, text: this.answer };
  }

  listen(stream) {
    this.player = new Audio();
    this.player.srcObject = stream;   // Chromium decodes a remote stream only while some element plays it
    this.player.play();
    this.analyser = this.audio.createAnalyser();
    this.analyser.fftSize = 8192;
    this.source = this.audio.createMediaStreamSource(stream);
    this.source.connect(this.analyser);
  }

  /// Hertz of the strongest partial of what is heard, or null in silence.
  peakFrequency() {
    if (!this.analyser) return null;
    const spectrum = new Float32Array(this.analyser.frequencyBinCount);
    this.analyser.getFloatFrequencyData(spectrum);
    const peak = spectrum.reduce((best, value, bin) => (value > spectrum[best] ? bin : best), 1);
    return spectrum[peak] < -70 ? null : peak * this.audio.sampleRate / this.analyser.fftSize;
  }

  async restart() {
    const offer = await this.peer.createOffer({ iceRestart: true });
    await this.peer.setLocalDescription(offer);
    const response = await fetch(this.location, {
      method: "PATCH",
      headers: { "Content-Type": "application/trickle-ice-sdpfrag", "If-Match": "*" },
      body: this.fragment(offer.sdp),
    });
    const text = await response.text();
    if (response.status === 200) {
      this.answer = this.answerWith(text);
      await this.peer.setRemoteDescription({ type: "answer", sdp: this.answer });
    }
    return { status: response.status, type: response.headers.get("Content-Type"), tag: response.headers.get("ETag"), text };
  }

  /// The lines of a description that an ICE restart is about, as RFC 8840 writes them.
  fragment(sdp) {
    const lines = sdp.split("\r\n");
    const first = (start) => lines.find((line) => line.startsWith(start));
    return [
      first("a=ice-options:"), first("a=group:BUNDLE"), first("m=audio"), first("a=mid:"), first("a=ice-ufrag:"), first("a=ice-pwd:"),
    ].filter(Boolean).join("\r\n") + "\r\n";
  }

  /// The first answer with the credentials and candidates of a fragment.
  answerWith(fragment) {
    const lines = fragment.split(/\r?\n/);
    const find = (start) => lines.find((line) => line.startsWith(start));
    const candidates = lines.filter((line) => line.startsWith("a=candidate:"));
    const hasNew = candidates.length > 0;
    return this.answer.split("\r\n").flatMap((line) => {
      if (line.startsWith("a=ice-ufrag:")) return [find("a=ice-ufrag:")];
      if (line.startsWith("a=ice-pwd:")) return [find("a=ice-pwd:")];
      if (line.startsWith("a=candidate:") && hasNew) return candidates.splice(0);   // all in place of the first old one
      return [line];
    }).join("\r\n");
  }

  /// Which sockets carry the call now, and how many packets came in on it; `relay` is the server's address.
  async path() {
    const stats = [...(await this.peer.getStats()).values()];
    const transport = stats.find((report) => report.type === "transport");
    const pair = stats.find((report) => report.type === "candidate-pair"
      && (transport?.selectedCandidatePairId ? report.id === transport.selectedCandidatePairId : report.selected));
    const local = stats.find((report) => report.id === pair?.localCandidateId);
    const remote = stats.find((report) => report.id === pair?.remoteCandidateId);
    const inbound = stats.find((report) => report.type === "inbound-rtp");
    return { port: local?.port ?? null, relay: remote?.address ?? null, state: this.peer.connectionState, packets: inbound?.packetsReceived ?? 0 };
  }

  async end() {
    const response = await fetch(this.location, { method: "DELETE" });
    this.peer.close();
    this.microphone.getTracks()[0].stop();
    this.audio.close();
    return response.status;
  }
}, true)
