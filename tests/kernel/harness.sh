# What the other scenarios assume about a node.
source "$(dirname "$0")/lib.sh"

case $1 in
first)
    assert_eq "$GREETING" "it's me" "the environment given by the test"
    assert_eq "$(</sys/block/ubdb/serial)" vol0123 "the serial of ubdb"
    assert_eq "$(findmnt -no FSTYPE /)" overlay "the root's file system"
    options=$(findmnt -no OPTIONS /)
    upper=${options#*upperdir=}
    upper=${upper%%,*}
    assert_eq "$(findmnt -no SOURCE -T "$upper")" /dev/ubda "the device of the root's upper directory"
    run_expect 1 test -e /etc/luks-agent-harness
    echo kept >/etc/luks-agent-harness
    answer=$( (exec 3<>/dev/tcp/127.0.0.1/1) 2>&1) || true
    assert_contains "$answer" refused "connecting to the loopback network"
    ;;
second)
    assert_eq "$(</etc/luks-agent-harness)" kept "a file written before the reboot"
    ;;
fail)
    false
    ;;
hang)
    sleep 1000
    ;;
die)
    echo c >/proc/sysrq-trigger
    ;;
esac
