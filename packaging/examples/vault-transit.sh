#!/bin/bash
# The exec provider (docs/exec-provider.md) for the transit engine of HashiCorp Vault or OpenBao. Needs curl and jq.
#
#   vault-transit.sh [CONFIGURATION]        (default: /etc/luks-agent/vault.conf)
#
# In the configuration, which root owns and nobody else can write to:
#
#   VAULT_ADDR=https://vault.example.com:8200
#   VAULT_TOKEN_FILE=/run/vault/token       # the sink of a Vault Agent; root must own it, because the units may not read other users' files
#   VAULT_MOUNT=transit                     # where the transit engine is mounted; exec.key_id is then "transit/NAME"
#   VAULT_CACERT=/etc/ssl/vault-ca.pem      # optional
#   VAULT_NAMESPACE=team                    # optional
#
# The policy that the token needs, for the key "nodes":
#
#   path "transit/datakey/plaintext/nodes" { capabilities = ["update"] }
#   path "transit/decrypt/nodes"           { capabilities = ["update"] }
#
# Nodes that never make volumes need the second alone. Neither the token nor a data key is ever an argument of a command, in the
# environment, or in a file that this script writes: they are in pipes and in variables of this shell.
set -euo pipefail

# fail KIND MESSAGE: answers with an error.
fail() {
    jq -cn --arg kind "$1" --arg message "$2" '{error: {kind: $kind, message: $message}}'
    exit
}

config=${1:-/etc/luks-agent/vault.conf}
VAULT_ADDR='' VAULT_TOKEN_FILE='' VAULT_MOUNT=transit VAULT_CACERT='' VAULT_NAMESPACE=''
[[ -r $config ]] || fail configuration "cannot read $config"
# shellcheck source=/dev/null
source "$config"
# Vault relies on TLS to protect the data key on its way. A Vault proxy on this machine needs none.
[[ $VAULT_ADDR =~ ^(https://|http://(127\.0\.0\.1|localhost)[:/]) ]] ||
    fail configuration "VAULT_ADDR in $config must begin with https://, or be on this machine"
# a Vault Agent that has just started may not have written it yet
[[ -s $VAULT_TOKEN_FILE && -r $VAULT_TOKEN_FILE ]] || fail unavailable "there is no token in '$VAULT_TOKEN_FILE' that root may read"
token=$(<"$VAULT_TOKEN_FILE")

# The request holds no secret: a wrapped key is useless without Vault.
request=$(cat)
field() { jq -r --arg name "$1" '.[$name] // empty' <<<"$request"; }

[[ $(field version) == 1 ]] || fail unsupported "this program knows version 1 of the protocol"
operation=$(field operation) key_id=$(field key_id)
# The name may come from the header of a disk that somebody has attached: it must not lead to another part of Vault.
[[ $key_id =~ ^"$VAULT_MOUNT"/[A-Za-z0-9_-]+$ ]] || fail configuration "the name of the key is not $VAULT_MOUNT/NAME"
name=${key_id##*/}

# call PATH <BODY: posts to Vault. Prints the body of the response and, on a line of its own, the HTTP status.
call() {
    local options=(--silent --show-error --connect-timeout 5 --max-time 20 --write-out '\n%{http_code}' --data @-)
    [[ -z $VAULT_CACERT ]] || options+=(--cacert "$VAULT_CACERT")
    [[ -z $VAULT_NAMESPACE ]] || options+=(--header "X-Vault-Namespace: $VAULT_NAMESPACE")
    curl "${options[@]}" --header @<(printf 'X-Vault-Token: %s\n' "$token") "$VAULT_ADDR/v1/$VAULT_MOUNT/$1"
}

# explain STATUS BODY: answers with the error that a response means.
explain() {
    local message kind
    message=$(printf %s "$2" | jq -r '.errors // [] | join("; ")' 2>/dev/null) || message=
    case "$1 $message" in
        403\ *) kind=denied ;;
        4*"encryption key not found"*) [[ $operation == unwrap ]] && kind=key-disabled || kind=configuration ;;
        400*"disallowed by policy"*) kind=key-disabled ;;
        400\ *) [[ $operation == unwrap ]] && kind=wrapped-key || kind=configuration ;;
        404\ *) kind=configuration ;;
        *) kind=unavailable ;;
    esac
    fail "$kind" "HTTP status $1 from $VAULT_ADDR: ${message:-no message}"
}

case $operation in
generate)
    answer=$(call "datakey/plaintext/$name" <<<'{"bits": 256}') || fail unavailable "cannot reach $VAULT_ADDR"
    filter='{plaintext: .data.plaintext, wrapped_key: (.data.ciphertext | @base64), key_id: $key_id}'
    ;;
unwrap)
    answer=$(jq -c '{ciphertext: (.wrapped_key | @base64d)}' <<<"$request" | call "decrypt/$name") ||
        fail unavailable "cannot reach $VAULT_ADDR"
    filter='{plaintext: .data.plaintext, key_id: $key_id}'
    ;;
*)
    # whether Vault would unwrap is only certain once it has: 'luks-agent health' unwraps the data key instead
    fail unsupported "this program only generates and unwraps"
    ;;
esac
status=${answer##*$'\n'} body=${answer%$'\n'*}
[[ $status == 200 ]] || explain "$status" "$body"
printf %s "$body" | jq -c --arg key_id "$key_id" "$filter"
