#!/bin/sh
# Builds the package of the tree that this is in, unsigned, in FOLDER. Called by "make deb".
#
#   debian/build.sh FOLDER [LDAPTOR]
#
# Debian does not have ldaptor, so it comes with the package, as a second source: the distribution
# that ldaptor.txt names, from the Python Package Index, or LDAPTOR, a file of that.
set -eu
cd "$(dirname "$0")/.."
folder=$1 ldaptor=${2:-} python=${PYTHON:-python3}

missing() {
	echo "make deb needs $1" >&2
	exit 1
}
command -v dpkg-buildpackage >/dev/null || missing "dpkg-buildpackage: apt-get install dpkg-dev"
dpkg-checkbuilddeps || missing "these: apt-get build-dep ./"

version=$(dpkg-parsechangelog -S Version | sed 's/-[^-]*$//')
name=qmailldap-$version
rm -rf "$folder"
mkdir -p "$folder/$name/ldaptor"

second=$folder/qmailldap_$version.orig-ldaptor.tar.gz
if [ -n "$ldaptor" ]; then
	cp "$ldaptor" "$second"
else
	"$python" -m pip --version >/dev/null 2>&1 ||
		missing "python3-pip, or LDAPTOR=FILE, the distribution that debian/ldaptor.txt names"
	"$python" -m pip download --quiet --no-deps --no-binary=:all: --no-build-isolation \
		--require-hashes --requirement debian/ldaptor.txt --dest "$folder"
	mv "$folder"/ldaptor-*.tar.gz "$second"
fi
echo "$(sed 's/.*sha256://' debian/ldaptor.txt)  $second" | sha256sum --check --quiet

# What is committed, or about to be; of an unpacked sdist all.
if git rev-parse --git-dir >/dev/null 2>&1; then
	git ls-files --cached --others --exclude-standard
else
	find . -type f -not -path "./build/*" -not -path "./.*" -printf '%P\n'
fi | while read -r file; do test ! -f "$file" || echo "$file"; done |
	tar --create --files-from=- --owner=0 --group=0 --mode=u+rw,go=rX |
	tar --extract --directory="$folder/$name"
tar --create --gzip --directory="$folder" --owner=0 --group=0 --exclude="$name/debian" \
	--exclude="$name/ldaptor" --file="$folder/qmailldap_$version.orig.tar.gz" "$name"
tar --extract --directory="$folder/$name/ldaptor" --strip-components=1 --file="$second"

cd "$folder/$name"
dpkg-buildpackage --unsigned-source --unsigned-changes
ls -l ../*.deb
