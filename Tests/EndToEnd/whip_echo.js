// A WHIP server inside the page, behind a fetch of its own: proves whip_caller.js without any server.

(window.fetch = async (path, { method, headers, body }) => {
  const reply = (status, text, fields = {}) => new Response(text, { status, headers: fields });
  const credentials = (sdp) => ({ ufrag: /a=ice-ufrag:(\S+)/.exec(sdp)[1], password: /a=ice-pwd:(\S+)/.exec(sdp)[1] });
  const answerTo = async (offer) => {
    const echo = window.echo;
    await echo.setRemoteDescription({ type: "offer", sdp: offer });
    await echo.setLocalDescription(await echo.createAnswer());
    await new Promise((done) => setTimeout(done, 500));   // no event says that a restart has gathered its candidates
    return echo.localDescription.sdp;
  };
  switch (method) {
    case "POST": {
      window.echo = new RTCPeerConnection();
      window.echo.addEventListener("track", ({ track, streams }) => {
        window.echoPlayer = new Audio();
        window.echoPlayer.srcObject = streams[0];
        window.echo.addTrack(track, streams[0]);
      });
      window.echoOffer = body;
      const sdp = await answerTo(body);
      return reply(201, sdp, { Location: "/whip/rtc_0", ETag: `"${credentials(sdp).ufrag}"`, "Content-Type": "application/sdp" });
    }
    case "PATCH": {
      if (headers["If-Match"] !== "*") return reply(412, "");
      const fresh = credentials(body);
      const offer = window.echoOffer
        .replace(/a=ice-ufrag:\S+/g, `a=ice-ufrag:${fresh.ufrag}`)
        .replace(/a=ice-pwd:\S+/g, `a=ice-pwd:${fresh.password}`)
        .replace(/^o=(\S+) (\S+) (\d+)/m, (_, name, id, version) => `o=${name} ${id} ${Number(version) + 1}`);
      const sdp = await answerTo(offer);
      const lines = sdp.split("\r\n").filter((line) => /^(a=ice-|a=mid:|m=|a=candidate:|a=end-of)/.test(line));
      return reply(200, `${lines.join("\r\n")}\r\n`, {
        ETag: `"${credentials(sdp).ufrag}"`, "Content-Type": "application/trickle-ice-sdpfrag",
      });
    }
    case "DELETE":
      window.echo.close();
      return reply(200, "");
  }
}, true)
