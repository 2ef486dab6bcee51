# Stock cryptsetup formats, opens and writes a volume, and opens and reads it after a reboot.
source "$(dirname "$0")/lib.sh"

printf 'a test passphrase' >/run/passphrase
mkdir -p /mnt/data

case $1 in
format)
    text=$(marker_text cryptsetup)
    echo "$text" >~/text
    cryptsetup luksFormat --batch-mode --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
        --key-file /run/passphrase /dev/ubdb
    cryptsetup open --key-file /run/passphrase /dev/ubdb data
    mkfs.xfs -q /dev/mapper/data
    mount /dev/mapper/data /mnt/data
    for _ in {1..1000}; do echo "$text"; done >/mnt/data/file
    umount /mnt/data
    cryptsetup close data
    echo "text: $text"
    ;;
reopen)
    run_expect 1 test -e /dev/mapper/data
    cryptsetup open --key-file /run/passphrase /dev/ubdb data
    mount /dev/mapper/data /mnt/data
    assert_eq "$(sort -u /mnt/data/file)" "$2" "the file written before the reboot"
    umount /mnt/data
    cryptsetup close data
    ;;
esac
