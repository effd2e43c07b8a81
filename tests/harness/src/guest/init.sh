#!/bin/busybox sh
# Process 1 of a test guest. What it prints is read by programs: see ../guest.rs.
#
# On the kernel's command line, words of this form, with commas for blanks:
#   godwit.run=COMMAND,ARGUMENT,...   run by the shell, in turn; `guest` is the guest program
#   godwit.root=/dev/DEVICE           goes on with the system on that disk
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
mount -t tmpfs tmpfs /tmp
export PATH=/bin:/usr/bin:/sbin:/usr/sbin HOME=/tmp PS1='guest# ' TERM=vt100
echo "GUEST cpus=$(nproc)"

end=shell
case " $words " in
*" godwit.nomodules "*) ;;
*)
    for module in /modules/*; do
        insmod "$module" || echo "GUEST FAILED insmod $module"
    done
    ;;
esac
ip link set lo up
echo "GUEST ready"

for word in $words; do
    case "$word" in
    godwit.run=*)
        command=$(echo "${word#godwit.run=}" | tr , ' ')
        echo "GUEST run $command"
        eval "$command"
        echo "GUEST ran status=$?"
        ;;
    godwit.root=*)
        disk=${word#godwit.root=}
        # Its driver may still be looking at it.
        for attempt in 1 2 3 4 5 6 7 8 9 10; do
            [ -b "$disk" ] && break
            sleep 1
        done
        if mount -t ext4 "$disk" /mnt; then
            umount /tmp /sys
            mount --move /dev /mnt/dev
            # The shell finds its applets through /proc: none after this but by name.
            umount /proc
            exec /bin/busybox switch_root /mnt /sbin/init
        fi
        echo "GUEST FAILED no system on $disk"
        ;;
    godwit.end=*) end=${word#godwit.end=} ;;
    esac
done
echo "GUEST end $end"
case "$end" in
poweroff | reboot | halt) "$end" -f ;;
esac
while true; do
    setsid cttyhack sh
done
