#!/bin/bash
# test-vm.sh [FILTER]: runs tests inside Debian's own kernel, in a virtual machine whose only cgroups are v2.
# For hosts that have v1, or a kernel that Debian has not. Needs no KVM: ORCH_VM_ACCEL=kvm uses it where it works.
# The machine sees this host's files read-only (9p) below an overlay in its memory, so it runs what `make test-vm`
# built (the test bundle, orch-init and orch-runtime) in ORCH_SCRATCH (default .build). Nothing of this host is changed; the kernel and the ramdisk stay in ORCH_SCRATCH/vm.
# Also: ORCH_VM_MEMORY (MiB, 2048), ORCH_VM_SECONDS (1800). ORCH_VM_COMMAND: run that instead of the tests, as in
# ORCH_VM_COMMAND="CRUN_SOURCE=FOLDER scripts/crun-tests.sh $PWD/.build/debug/orch-runtime test_update"; what is below /tmp, /run and /var/lib is not seen there.
# The machine has 8 huge pages of 2 MB.
# ORCH_VM_SELINUX=1: SELinux in AppArmor's place (one alone labels processes), with the policy of scripts/test-vm.cil, permissive.
# ORCH_VM_SYSTEMD=1: systemd is its first process (Debian's packages systemd and dbus), as tests of systemd's scopes want it.
set -euo pipefail
filter=${1:-RuntimeTests|CgroupsTests|BundleTests}
cd "$(dirname "$0")/.."
repository=$PWD
scratch=$(realpath "${ORCH_SCRATCH:-.build}")
tests=$scratch/debug/orchPackageTests.xctest
work=$scratch/vm

[ "$(uname -m)" = x86_64 ] || { echo "test-vm.sh: only x86_64 is prepared, this is $(uname -m)" >&2; exit 1; }
for need in qemu-system-x86_64:qemu-system-x86 busybox:busybox-static cpio:cpio depmod:kmod dpkg-deb:dpkg; do
  command -v "${need%%:*}" >/dev/null || PATH=$PATH:/usr/sbin:/sbin command -v "${need%%:*}" >/dev/null ||
    { echo "test-vm.sh: ${need%%:*} is missing: apt-get install ${need##*:}" >&2; exit 1; }
done
PATH=$PATH:/usr/sbin:/sbin
[ -x "$tests" ] || { echo "test-vm.sh: $tests is not built: make test-vm" >&2; exit 1; }
mkdir -p "$work"

# Debian's kernel: the package that linux-image-amd64 stands for today.
package=$(apt-cache show linux-image-amd64 | sed -n 's/^Depends: \(linux-image-[^ ,]*\).*/\1/p' | head -1)
[ -n "$package" ] || { echo "test-vm.sh: apt knows no linux-image-amd64: apt-get update" >&2; exit 1; }
if [ ! -f "$work/$package/vmlinuz" ]; then
  echo "test-vm.sh: downloading $package"
  rm -rf "$work/$package" "$work/deb"
  mkdir -p "$work/deb"
  (cd "$work/deb" && apt-get download -q "$package" >/dev/null)
  dpkg-deb -x "$work"/deb/*.deb "$work/$package.new"
  rm -rf "$work/deb"
  release=$(ls "$work/$package.new/lib/modules")
  depmod -b "$work/$package.new" "$release"
  cp "$work/$package.new/boot/vmlinuz-$release" "$work/$package.new/vmlinuz"
  mv "$work/$package.new" "$work/$package"
fi
kernel=$work/$package
# What loads AppArmor profiles, for that kernel alone.
if [ ! -x "$work/apparmor_parser" ]; then
  (cd "$work" && rm -rf deb && mkdir deb && cd deb && apt-get download -q -o APT::Sandbox::User=root apparmor >/dev/null && dpkg-deb -x ./*.deb x && cp "$(find x -name apparmor_parser)" ..)
  rm -rf "$work/deb"
fi
# What compiles SELinux' policies; libsepol is everywhere where useradd is.
if [ -n "${ORCH_VM_SELINUX:-}" ] && [ ! -x "$work/secilc" ]; then
  (cd "$work" && rm -rf deb && mkdir deb && cd deb && apt-get download -q -o APT::Sandbox::User=root secilc >/dev/null && dpkg-deb -x ./*.deb x && cp x/usr/bin/secilc ..)
  rm -rf "$work/deb"
fi
release=$(ls "$kernel/lib/modules")

# The ramdisk: busybox, the modules with what they depend on, and an init that changes into this host's files.
disk=$(mktemp -d)
log=$(mktemp)
trap 'rm -rf "$disk" "$log"' EXIT
mkdir -p "$disk"/{bin,modules,proc,host,memory,root}
cp "$(command -v busybox)" "$disk/bin/busybox"
cp "$work/apparmor_parser" "$disk/bin/apparmor_parser"
parameters="console=ttyS0 quiet panic=-1 no_timer_check hugepages=8"
if [ -n "${ORCH_VM_SELINUX:-}" ]; then
  "$work/secilc" -f /dev/null -o "$disk/policy" scripts/test-vm.cil
  parameters+=" security=selinux selinux=1 enforcing=0"
fi
for module in virtio_pci 9pnet_virtio 9p overlay virtio_rng veth bridge br_netfilter vxlan dummy tun nf_tables nft_chain_nat nft_ct nft_masq nft_nat \
  nft_redir nft_fib_inet nft_numgen nft_reject_inet nft_reject_ipv4 nft_reject_ipv6 nft_objref nf_conntrack_netlink udp_diag tcp_diag sctp sch_ingress cls_bpf; do
  modprobe -d "$kernel" -S "$release" --show-depends $module
done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' >"$disk/list"
while read -r file; do cp "$file" "$disk/modules/" && basename "$file"; done <"$disk/list" >"$disk/modules/order"

cat >"$disk/init" <<'INIT'
#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
while read -r module; do $b insmod /modules/$module 2>/dev/null; done </modules/order
$b mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=262144,cache=loose host /host || exec $b poweroff -f
$b mount -t tmpfs -o size=75% memory /memory
$b mkdir /memory/upper /memory/work
$b mount -t overlay -o lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work root /root
$b mount -t proc proc /root/proc
$b mount -t sysfs sys /root/sys
$b mount -t cgroup2 cgroup2 /root/sys/fs/cgroup
$b mount -t securityfs securityfs /root/sys/kernel/security
if [ -e /policy ]; then
  $b mount -t selinuxfs selinuxfs /root/sys/fs/selinux
  # In one write(2), as the kernel wants it.
  $b dd if=/policy of=/root/sys/fs/selinux/load bs=1M 2>/dev/null || echo "test-vm: the kernel does not take the policy"
fi
$b mount -t devtmpfs dev /root/dev
$b mkdir -p /root/dev/pts /root/dev/shm
$b ln -s /proc/self/fd /root/dev/fd
$b mount -t devpts devpts /root/dev/pts
# No overlay on an overlay: containers live on tmpfs.
for folder in /dev/shm /run /tmp /var/lib; do $b mount -t tmpfs tmpfs /root$folder; done
$b cp /inside /root/run/inside
$b cp /bin/busybox /root/run/busybox
$b mkdir /root/run/tools
$b cp /bin/apparmor_parser /root/run/tools/
[ ! -e /units ] || { $b mkdir -p /root/run/systemd; $b cp -r /units /root/run/systemd/system; $b rm -f /root/.dockerenv
  exec $b switch_root /root /lib/systemd/systemd --unit=orch-test.service --show-status=0; }
exec $b switch_root /root /bin/bash /run/inside
INIT
if [ -n "${ORCH_VM_SYSTEMD:-}" ]; then
  for need in /lib/systemd/systemd:systemd /usr/bin/dbus-daemon:dbus; do
    [ -x "${need%%:*}" ] || { echo "test-vm.sh: ${need%%:*} is missing: apt-get install ${need##*:}" >&2; exit 1; }
  done
  mkdir "$disk/units"
  printf '[Unit]\nRequires=dbus.socket\nAfter=dbus.socket\n[Service]\nExecStart=/bin/bash /run/inside\nStandardOutput=tty\nStandardError=tty\nTTYPath=/dev/console\n' \
    >"$disk/units/orch-test.service"
fi
cat >"$disk/inside" <<INSIDE
${ORCH_VM_SYSTEMD:+export SWT_EXPERIMENTAL_MAXIMUM_PARALLELIZATION_WIDTH=1}
export HOME=/root TMPDIR=/tmp PATH=/usr/sbin:/usr/bin:/sbin:/bin:/run/tools
ip link set lo up
# What the kernel gives a lease's holder (fcntl(2)) is 45 s: too few commands of an emulated machine for StartTests.
echo 600 >/proc/sys/fs/lease-break-time
cd '$repository'
echo "test-vm: Linux \$(uname -r), \$(stat -f -c %T /sys/fs/cgroup), controllers \$(cat /sys/fs/cgroup/cgroup.controllers)"
${ORCH_VM_COMMAND:-"'$tests' --testing-library swift-testing --filter '$filter'"} 2>&1
echo "test-vm: exit \$?"
/run/busybox poweroff -f
INSIDE
chmod +x "$disk/init"
(cd "$disk" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/ramdisk.gz"

# no_timer_check above: on a busy host an emulated timer is late, and the kernel would take it for broken.
shown='test-vm:|✔|✘|↳|Kernel panic|rror:'
[ -z "${ORCH_VM_COMMAND:-}" ] || shown=.
echo "test-vm.sh: booting (emulated: a minute or two)"
timeout "${ORCH_VM_SECONDS:-1800}" qemu-system-x86_64 -accel "${ORCH_VM_ACCEL:-tcg,thread=multi}" -cpu max -smp 2 -m "${ORCH_VM_MEMORY:-2048}" \
  -nodefaults -nographic -no-reboot -serial stdio -kernel "$kernel/vmlinuz" -initrd "$work/ramdisk.gz" \
  -append "$parameters" -device virtio-rng-pci \
  -fsdev local,id=host,path=/,security_model=none,readonly=on,multidevs=remap -device virtio-9p-pci,fsdev=host,mount_tag=host \
  </dev/null | stdbuf -oL tr -d '\r' | tee "$log" | grep --line-buffered -aE "$shown" || true
code=$(sed -n 's/^test-vm: exit \([0-9]*\)$/\1/p' "$log")
[ -n "$code" ] || { tail -30 "$log" >&2; echo "test-vm.sh: the machine ended without a result" >&2; exit 1; }
exit "$code"
