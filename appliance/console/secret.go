package console

import (
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"

	"patchbay/appliance/config"
)

// The hash that is kept of a password is PBKDF2 with HMAC-SHA-512, written as
// the ASA does since 9.6:
//
//	$sha512$ROUNDS$SALT$KEY
//
// with salt and key of 16 bytes in base64. The ASA's 5000 rounds are few today;
// the number stands in the hash, and hashes made here have more. (RFC 8018,
// section 5.2; OWASP's Password Storage Cheat Sheet asks for 210,000.)
const (
	rounds    = 210_000
	maxRounds = 1_000_000 // of a hash that a configuration has
	hashLen   = 16        // bytes of salt, and of key
)

// hashing has one password hashed at a time: who guesses passwords shall not
// have the processors that carry calls.
var hashing sync.Mutex

// hashPassword returns the hash of a password with salt from random.
func hashPassword(random io.Reader, password string, rounds int) (string, error) {
	salt := make([]byte, hashLen)
	if _, err := io.ReadFull(random, salt); err != nil {
		return "", fmt.Errorf("console: salt of a password: %w", err)
	}
	key, err := derive(password, salt, rounds, hashLen)
	if err != nil {
		return "", err
	}
	enc := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("$sha512$%d$%s$%s", rounds, enc(salt), enc(key)), nil
}

func derive(password string, salt []byte, rounds, n int) ([]byte, error) {
	hashing.Lock()
	defer hashing.Unlock()
	return pbkdf2.Key(sha512.New, password, salt, rounds, n)
}

// nobody is a hash that no password has. It is compared with where there is no
// user, so that to ask tells nothing.
var nobody = config.Password{Kind: config.PBKDF2,
	Text: "$sha512$" + strconv.Itoa(rounds) + "$AAAAAAAAAAAAAAAAAAAAAA==$AAAAAAAAAAAAAAAAAAAAAA=="}

// matches reports whether password is the one of p. The ASA's old hash of a
// user's password is salted with the user's name, user; that of "enable
// password" and "passwd" is not.
func matches(p config.Password, user, password string) bool {
	switch p.Kind {
	case config.Plain:
		return subtle.ConstantTimeCompare([]byte(p.Text), []byte(password)) == 1
	case config.Encrypted:
		return subtle.ConstantTimeCompare([]byte(p.Text), []byte(oldHash(user, password))) == 1
	case config.PBKDF2:
		return matchesPBKDF2(p.Text, password)
	}
	return false
}

func matchesPBKDF2(hash, password string) bool {
	parts := strings.Split(hash, "$")
	if len(parts) != 5 || parts[0] != "" || parts[1] != "sha512" {
		return false
	}
	n, err := strconv.Atoi(parts[2])
	if err != nil || n < 1 || n > maxRounds {
		return false
	}
	salt, err1 := base64.StdEncoding.DecodeString(parts[3])
	want, err2 := base64.StdEncoding.DecodeString(parts[4])
	if err1 != nil || err2 != nil || len(want) < hashLen || len(want) > sha512.Size {
		return false
	}
	key, err := derive(password, salt, n, len(want))
	return err == nil && subtle.ConstantTimeCompare(key, want) == 1
}

// itoa64 are the digits of the old hash.
const itoa64 = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// oldHash returns the hash that an ASA before 9.6 keeps: one MD5 of the password,
// the first four characters of the user's name and zeros up to 16 or 32 bytes, of
// which each fourth byte is left out. A fast computer finds the password of one
// in hours. (Its algorithm is public as passlib's cisco_asa.)
func oldHash(user, password string) string {
	const short, long = 16, 32
	text := password
	if user != "" && len(password) < 28 {
		text += strings.Repeat(user, 4)[:4]
	}
	size := short
	if len(text) > short {
		size = long
	}
	block := make([]byte, size)
	copy(block, text)
	sum := md5.Sum(block)
	var out []byte
	for i := 0; i < len(sum); i += 4 {
		v := uint32(sum[i]) | uint32(sum[i+1])<<8 | uint32(sum[i+2])<<16
		for range 4 {
			out = append(out, itoa64[v&0x3f])
			v >>= 6
		}
	}
	return string(out)
}
