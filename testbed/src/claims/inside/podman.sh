# podman and buildah as root: an image from a tar, because no registry is reachable. A test host may have no
# controller for --pids-limit.
set -eu
mkdir -p rootfs/bin rootfs/tmp
cp /usr/bin/busybox rootfs/bin/
for name in cat echo sh; do ln -s busybox "rootfs/bin/$name"; done
tar -C rootfs -c . | sudo podman import --quiet - base >/dev/null
printf 'FROM base\nRUN echo built >/made\n' >Containerfile
sudo buildah bud --quiet --tag built . >/dev/null
sudo podman run --rm --network host --pids-limit 0 built sh -c 'echo "podman runs what buildah $(cat /made)"'
echo "driver: $(sudo podman info --format '{{.Store.GraphDriverName}}')"
