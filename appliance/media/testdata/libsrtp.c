/*
 * The SRTP operation of libsrtp2, for TestBenchSRTP: 172 bytes of RTP, one
 * packet of each of 1,000 sessions after the other, AES_CM_128_HMAC_SHA1_80.
 * Prints the CPU time of one packet in ns, to protect and to unprotect it.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "srtp.h"

enum { STREAMS = 1000, PLAIN = 172, ROOM = 256 };

static uint8_t packets[STREAMS][ROOM];
static uint8_t keys[STREAMS][SRTP_MASTER_KEY_LEN];
static srtp_t tx[STREAMS], rx[STREAMS];

static void must(srtp_err_status_t s, const char *what)
{
	if (s != srtp_err_status_ok) {
		fprintf(stderr, "libsrtp: %s: status %d\n", what, s);
		exit(1);
	}
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static void voice(uint8_t *b, unsigned seq)
{
	memset(b, 0, 12);
	b[0] = 0x80;
	b[2] = seq >> 8;
	b[3] = seq;
	b[11] = 7;
	for (int i = 12; i < PLAIN; i++)
		b[i] = seq + i;
}

int main(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 100, len;
	double protect = 0, unprotect = 0, t;

	must(srtp_init(), "init");
	for (int i = 0; i < STREAMS; i++) {
		srtp_policy_t p;
		memset(&p, 0, sizeof p);
		for (int j = 0; j < SRTP_MASTER_KEY_LEN; j++)
			keys[i][j] = i * 7 + (i >> 8) + j;
		srtp_crypto_policy_set_aes_cm_128_hmac_sha1_80(&p.rtp);
		srtp_crypto_policy_set_aes_cm_128_hmac_sha1_80(&p.rtcp);
		p.key = keys[i];
		p.window_size = 128;
		p.ssrc.type = ssrc_any_outbound;
		must(srtp_create(&tx[i], &p), "session");
		p.ssrc.type = ssrc_any_inbound;
		must(srtp_create(&rx[i], &p), "session");
	}
	for (int r = 1; r <= rounds; r++) {
		for (int i = 0; i < STREAMS; i++)
			voice(packets[i], r);
		t = now();
		for (int i = 0; i < STREAMS; i++) {
			len = PLAIN;
			must(srtp_protect(tx[i], packets[i], &len), "protect");
		}
		protect += now() - t;
		t = now();
		for (int i = 0; i < STREAMS; i++) {
			len = PLAIN + 10;
			must(srtp_unprotect(rx[i], packets[i], &len), "unprotect");
		}
		unprotect += now() - t;
		if (len != PLAIN) {
			fprintf(stderr, "libsrtp: %d bytes came out\n", len);
			return 1;
		}
	}
	printf("%.1f %.1f\n", protect / rounds / STREAMS, unprotect / rounds / STREAMS);
	return 0;
}
