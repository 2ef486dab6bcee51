-- What does not open again once it is closed, if this key is disabled? Volumes that are not attached are
-- among them: one that was moved stands beside its former node, too, until 'luks-agent forget'. The parameter is the ARN of the key; Athena
-- wants it in single quotes.
SELECT account, region, node, volume_id, device, size, mounts, key_state
FROM luks_agent_newest
WHERE key_arn = ?
ORDER BY account, region, node, volume_id;
