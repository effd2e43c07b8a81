#!/bin/busybox sh
# Process 1 of a test guest: /init of the ramdisk, and /sbin/init of the root disk. What it prints is
# read by programs: see ../guest.rs.
#
# On the kernel's command line, words of this form, with commas for blanks:
#   godwit.net=dhcp|A.B.C.D/LEN       network on the first card
#   godwit.root=/dev/DEVICE           goes on with the system on that disk
#   godwit.run=COMMAND,ARGUMENT,...   run by the shell, in turn; `guest` is the guest program
#   godwit.end=poweroff|reboot|halt   what then; without it, a shell on the console
# `godwit.nomodules` leaves the drivers out; `godwit.ticks` prints `GUEST ticks=N` early.

/bin/busybox mount -t proc proc /proc
read -r uptime idle </proc/uptime
read -r words </proc/cmdline
echo "GUEST uptime=$uptime"
case " $words " in
*" godwit.ticks "*) /bin/guest ticks ;;
esac
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
export PATH=/bin:/usr/bin:/sbin:/usr/sbin HOME=/tmp PS1='guest# ' TERM=vt100
echo "GUEST cpus=$(nproc)"

# The rest of a word that begins with $1; nothing without one.
setting() {
    for word in $words; do
        case "$word" in
        "$1"*) echo "${word#"$1"}" ;;
        esac
    done
}

load_drivers() {
    case " $words " in
    *" godwit.nomodules "*) return ;;
    esac
    for module in /modules/*; do
        insmod "$module" || echo "GUEST FAILED insmod $module"
    done
}

# Goes on as /sbin/init of the disk $1; returns only when there is none.
switch_to() {
    # Its driver may still be looking at it.
    for attempt in 1 2 3 4 5 6 7 8 9 10; do
        [ -b "$1" ] && break
        sleep 1
    done
    mount -t ext4 "$1" /mnt || return
    # The shell finds its applets through /proc: none after this but by name.
    umount /tmp /run /sys /dev/shm /dev/pts /dev /proc
    exec /bin/busybox switch_root /mnt /sbin/init
}

network() {
    ip link set lo up
    address=$(setting godwit.net=)
    [ -n "$address" ] || return
    card=$(ls /sys/class/net | grep -v '^lo$' | head -n 1)
    ip link set "$card" up
    if [ "$address" = dhcp ]; then
        udhcpc -q -n -t 10 -i "$card" -s /bin/dhcp.sh || echo "GUEST FAILED dhcp on $card"
    else
        ip addr add "$address" dev "$card"
    fi
    echo "GUEST net=$card $(ip -4 addr show "$card" | sed -n 's/^ *inet \([^ ]*\).*/\1/p')"
}

if [ -d /modules ]; then
    load_drivers
    root=$(setting godwit.root=)
    if [ -n "$root" ]; then
        switch_to "$root"
        echo "GUEST FAILED no system on $root"
    fi
else
    hostname guest
    echo "GUEST system=$(sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' /etc/os-release)"
fi
network
echo "GUEST ready"

for command in $(setting godwit.run=); do
    command=$(echo "$command" | tr , ' ')
    echo "GUEST run $command"
    eval "$command"
    echo "GUEST ran status=$?"
done
end=$(setting godwit.end=)
echo "GUEST end ${end:-shell}"
sync
case "$end" in
poweroff | reboot | halt) "$end" -f ;;
esac
while true; do
    setsid cttyhack sh
done
