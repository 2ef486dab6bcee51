# Every fault of the key service there is in tests/kms/faults.toml, seen with provision: the exit code, the message, the disks.
source "$(dirname "$0")/lib.sh"

python3 "$(dirname "$0")/key-service-faults.py" "$(dirname "$0")/../kms/faults.toml" "$@"
