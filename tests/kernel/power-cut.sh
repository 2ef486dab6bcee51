# Syncs a file, then loses power while it writes more. (The test cuts the power from outside.)
source "$(dirname "$0")/lib.sh"

printf 'a test passphrase' >/run/passphrase
mkdir -p /mnt/data

case $1 in
write)
    cryptsetup luksFormat --batch-mode --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
        --key-file /run/passphrase /dev/ubdb
    cryptsetup open --key-file /run/passphrase /dev/ubdb data
    mkfs.ext4 -q /dev/mapper/data
    mount /dev/mapper/data /mnt/data
    echo synced >/mnt/data/file
    sync /mnt/data/file
    echo synced >/etc/power-cut
    sync /etc/power-cut
    say "writing on"
    for ((i = 0; ; i++)); do
        head -c 100000 /dev/urandom >"/mnt/data/more-$((i % 100))"
        ((i % 10)) || sync -f /mnt/data
    done
    ;;
check)
    assert_eq "$(</etc/power-cut)" synced "a file synced on the boot volume"
    cryptsetup open --key-file /run/passphrase /dev/ubdb data
    mount /dev/mapper/data /mnt/data
    assert_eq "$(</mnt/data/file)" synced "a file synced on the data volume"
    umount /mnt/data
    fsck.ext4 -fn /dev/mapper/data
    cryptsetup close data
    ;;
esac
