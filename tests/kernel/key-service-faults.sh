# Runs provision with every fault of tests/kms/faults.toml, and checks the exit code, the message and the disks.
source "$(dirname "$0")/lib.sh"

python3 "$(dirname "$0")/key-service-faults.py" "$(dirname "$0")/../kms/faults.toml" "$@"
