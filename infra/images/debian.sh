#!/usr/bin/env bash
# Makes the image debian:bookworm-slim from Debian's packages, where no registry has it: `debian.sh` as root.
# It trusts the certificate authorities that this machine was told to trust, and updates from where this machine does.
set -euo pipefail

image=${1:-debian:bookworm-slim}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
root=$folder/root

debootstrap --variant=minbase --include=ca-certificates bookworm "$root"

sources=/etc/apt/sources.list.d/debian.sources
if grep -qs bookworm "$sources"; then
  cp "$sources" "$root/etc/apt/sources.list.d/"
  : > "$root/etc/apt/sources.list"
  rm -f "$root"/var/lib/apt/lists/*_*
fi

if compgen -G '/usr/local/share/ca-certificates/*.crt' > /dev/null; then
  cp /usr/local/share/ca-certificates/*.crt "$root/usr/local/share/ca-certificates/"
  chroot "$root" update-ca-certificates
  printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' > "$root/etc/pip.conf"
fi

chroot "$root" apt-get update --quiet
chroot "$root" apt-get upgrade --quiet --yes

# What the slim image leaves out, but for the licences.
find "$root/usr/share/doc" -mindepth 2 ! -name copyright ! -type d -delete
rm -rf "$root"/usr/share/{man,info,locale,lintian,groff}/* "$root"/var/cache/{apt,debconf}/* \
  "$root"/var/lib/apt/lists/* "$root"/var/log/*

# By a file: an import from a pipe may take memory for all of it, and never end.
tar --create --numeric-owner --file "$folder/root.tar" --directory "$root" .
docker import --change 'CMD ["bash"]' "$folder/root.tar" "$image"
