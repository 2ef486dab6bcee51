-- What does not open again once it is closed, if this key is disabled? The parameter is the ARN of the key.
SELECT account, region, node, volume_id, device, size, mounts, key_state
FROM luks_agent_newest
WHERE key_arn = ?
ORDER BY account, region, node, volume_id;
