#pragma once
#include <opus.h>

// opus_encoder_ctl and opus_decoder_ctl are variadic, which Swift cannot call: the settings that we use, one function each.

static inline int copus_set_bitrate(OpusEncoder *encoder, opus_int32 bits) { return opus_encoder_ctl(encoder, OPUS_SET_BITRATE(bits)); }
static inline int copus_set_complexity(OpusEncoder *encoder, opus_int32 value) {
    return opus_encoder_ctl(encoder, OPUS_SET_COMPLEXITY(value));
}
static inline int copus_set_inband_fec(OpusEncoder *encoder, opus_int32 on) { return opus_encoder_ctl(encoder, OPUS_SET_INBAND_FEC(on)); }
static inline int copus_set_expected_loss(OpusEncoder *encoder, opus_int32 percent) {
    return opus_encoder_ctl(encoder, OPUS_SET_PACKET_LOSS_PERC(percent));
}
static inline int copus_set_dtx(OpusEncoder *encoder, opus_int32 on) { return opus_encoder_ctl(encoder, OPUS_SET_DTX(on)); }
static inline int copus_set_voice(OpusEncoder *encoder) { return opus_encoder_ctl(encoder, OPUS_SET_SIGNAL(OPUS_SIGNAL_VOICE)); }
static inline int copus_get_lookahead(OpusEncoder *encoder, opus_int32 *samples) {
    return opus_encoder_ctl(encoder, OPUS_GET_LOOKAHEAD(samples));
}
static inline int copus_reset_encoder(OpusEncoder *encoder) { return opus_encoder_ctl(encoder, OPUS_RESET_STATE); }
static inline int copus_reset_decoder(OpusDecoder *decoder) { return opus_decoder_ctl(decoder, OPUS_RESET_STATE); }

/// The number of frames that libopus finds in a packet, negative for none; for comparison with our own parser.
static inline int copus_count_frames(const unsigned char *packet, opus_int32 length) {
    opus_int16 sizes[48];
    return opus_packet_parse(packet, length, 0, 0, sizes, 0);
}
