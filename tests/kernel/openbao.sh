# Helpers for scenarios with OpenBao, from the virtual environment $OPENBAO_VENV. Its data is in /etc/openbao, on the boot volume.
# shellcheck shell=bash

BAO_HOME=/etc/openbao
BAO_URL=http://127.0.0.1:8200

# bao METHOD PATH [JSON]: calls the API, with the root token once there is one. Its own command line takes seconds to start here.
bao() {
    local token
    token=$(jq -r .root_token "$BAO_HOME/init.json" 2>/dev/null) || token=
    curl --silent --show-error --fail --request "$1" --header "X-Vault-Token: $token" --data "${3-}" "$BAO_URL/v1/$2"
}

# start_openbao: starts the server, which is sealed, or not initialised yet.
start_openbao() {
    local began=$SECONDS
    mkdir -p "$BAO_HOME/raft"
    cat >"$BAO_HOME/server.hcl" <<END
storage "raft" {
  path = "$BAO_HOME/raft"
  node_id = "one"
}
listener "tcp" {
  address = "127.0.0.1:8200"
  tls_disable = true
}
api_addr = "$BAO_URL"
cluster_addr = "http://127.0.0.1:8201"
END
    "${OPENBAO_VENV:?}/bin/bao" server -config="$BAO_HOME/server.hcl" >/run/bao.log 2>&1 &
    wait_for 180 bao GET sys/seal-status
    say "OpenBao $(bao GET sys/seal-status | jq -r .version) after $((SECONDS - began)) s"
}

# unseal_openbao: unseals the server and waits until it is active.
unseal_openbao() {
    bao PUT sys/unseal "$(jq -c '{key: .keys_base64[0]}' "$BAO_HOME/init.json")" >/dev/null
    wait_for 120 bao GET auth/token/lookup-self
}

# policy_of_openbao [POLICY]: writes the policy of the node's token; without an argument, the one in packaging/examples/vault-transit.sh.
policy_of_openbao() {
    local policy=${1-}
    [[ -n $policy ]] || policy=$(sed -n 's/^# *\(path "transit.*\)/\1/p' "$(dirname "$0")/../../packaging/examples/vault-transit.sh")
    assert_contains "$policy" 'path "transit/' "the policy"
    bao PUT sys/policies/acl/node "$(jq -cn --arg policy "$policy" '{policy: $policy}')"
}

# set_up_openbao: initialises the server, and makes the key transit/nodes, a token for the node, and /etc/luks-agent/vault.conf.
set_up_openbao() {
    (umask 077 && bao PUT sys/init '{"secret_shares": 1, "secret_threshold": 1}' >"$BAO_HOME/init.json")
    unseal_openbao
    bao POST sys/mounts/transit '{"type": "transit"}'
    bao POST transit/keys/nodes '{}' >/dev/null
    policy_of_openbao
    (umask 077 && bao POST auth/token/create '{"policies": ["node"], "no_default_policy": true, "period": "24h"}' |
        jq -er .auth.client_token >"$BAO_HOME/token")
    printf 'VAULT_ADDR=%s\nVAULT_TOKEN_FILE=%s\n' "$BAO_URL" "$BAO_HOME/token" >/etc/luks-agent/vault.conf
}
