#!/bin/bash
# EXAMPLE ONLY: a key service in a file. It shows the whole protocol of the exec provider (docs/exec-provider.md) with nothing but
# openssl and jq: data keys are wrapped with RSA-OAEP under a private key on this machine. Whoever has the boot volume has that key too,
# so this protects nothing but detached data volumes. Replace the two openssl commands by calls to your own key service.
#
#   openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072 -out /etc/nodes-kms/nodes.pem    (owner root, mode 0600)
#
# and in /etc/luks-agent/config.toml:
#
#   [keys]
#   provider = "exec"
#
#   [exec]
#   command = ["/usr/local/libexec/exec-provider.sh", "/etc/nodes-kms"]
#   key_id = "nodes"
#
# Rules for every such program: a key is never an argument of a command and never in the environment, where every process could read it,
# nor in a file. Here it is only in pipes and in variables of this shell: printf is a part of the shell, not a program, and there are no
# here-strings or here-documents with the key, which may be temporary files.
set -euo pipefail

keys=${1:?the directory of the keys}
oaep=(-pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256 -pkeyopt rsa_mgf1_md:sha256)

# fail KIND MESSAGE: answers with an error.
fail() {
    jq -cn --arg kind "$1" --arg message "$2" '{error: {kind: $kind, message: $message}}'
    exit
}

# The request holds no secret: a wrapped key is useless without the key that wrapped it.
request=$(cat)
field() { jq -r --arg name "$1" '.[$name] // empty' <<<"$request"; }

[[ $(field version) == 1 ]] || fail unsupported "this program knows version 1 of the protocol"
# The name may come from the header of a disk that somebody has attached: it must not lead to another directory.
key_id=$(field key_id)
[[ $key_id =~ ^[a-z0-9][a-z0-9-]*$ ]] || fail configuration "invalid name of a key"
key=$keys/$key_id.pem
[[ -r $key ]] || fail configuration "there is no key $key"

case $(field operation) in
generate)
    plaintext=$(openssl rand -base64 32)
    wrapped_key=$(printf %s "$plaintext" | base64 -d | openssl pkeyutl -encrypt -inkey "$key" "${oaep[@]}" | base64 -w0)
    printf '{"plaintext": "%s", "wrapped_key": "%s", "key_id": "%s"}\n' "$plaintext" "$wrapped_key" "$key_id"
    ;;
unwrap)
    plaintext=$(field wrapped_key | base64 -d | openssl pkeyutl -decrypt -inkey "$key" "${oaep[@]}" | base64 -w0) ||
        fail wrapped-key "the key $key_id did not wrap this, or it is damaged"
    printf '{"plaintext": "%s", "key_id": "%s"}\n' "$plaintext" "$key_id"
    ;;
*)
    # describe is not worth much here: 'luks-agent health' unwraps the data key instead
    fail unsupported "this program only generates and unwraps"
    ;;
esac
