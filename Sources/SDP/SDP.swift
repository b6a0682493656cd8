// SDP: the room's door file; see ARCHITECTURE.md.
