#!/bin/sh
# Builds libsrtp2 with OpenSSL from Debian's source package in the directory $1.
# Debian's own library is built with NSS and is several times slower. Leaves the
# sources' list of the machine as it is.
set -e
cd "$1"
mkdir -p lists/partial
. /etc/os-release
echo "deb-src http://deb.debian.org/debian ${VERSION_CODENAME:-bookworm} main" >source.list
apt() {
	apt-get -qq -o Dir::Etc::sourcelist="$PWD/source.list" -o Dir::Etc::sourceparts=- \
		-o Dir::State::lists="$PWD/lists" -o APT::Sandbox::User=root "$@"
}
apt update
apt source --download-only libsrtp2
tar xf libsrtp2_*.orig.tar.*
mv libsrtp-*/* .
./configure --enable-openssl >build.log 2>&1
make -j2 libsrtp2.a >>build.log 2>&1
grep -q 'define OPENSSL 1' crypto/include/config.h
