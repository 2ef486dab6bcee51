# LocalStack inside the node unwraps after a reboot what it wrapped before.
source "$(dirname "$0")/lib.sh"

start_localstack
assert_eq "$(aws kms describe-key --key-id "$LOCALSTACK_KEY_ARN" --query KeyMetadata.KeyState --output text)" \
    Enabled "the state of the key"

case $1 in
wrap)
    data_key=$(aws kms generate-data-key --key-id "$LOCALSTACK_KEY_ARN" --key-spec AES_256 \
        --query '[Plaintext,CiphertextBlob]' --output text)
    read -r plaintext wrapped <<<"$data_key"
    # keeps only a hash, because no plaintext key is kept, not even here
    echo "$(sha256sum <<<"$plaintext" | cut -d' ' -f1) $wrapped" >~/data-key
    ;;
unwrap)
    read -r hash wrapped <~/data-key
    # From a file: version 1 of the CLI takes raw bytes as an argument, version 2 base64. fileb:// is the same in both.
    base64 -d <<<"$wrapped" >/run/wrapped
    plaintext=$(aws kms decrypt --key-id "$LOCALSTACK_KEY_ARN" --ciphertext-blob fileb:///run/wrapped \
        --query Plaintext --output text)
    assert_eq "$(sha256sum <<<"$plaintext" | cut -d' ' -f1)" "$hash" "the hash of what the wrapped key was decrypted to"
    ;;
esac
say "AWS CLI done"
