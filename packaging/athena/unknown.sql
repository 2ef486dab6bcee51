-- Which nodes have a disk of which it is not known whether it is encrypted, and none in clear?
SELECT DISTINCT account, region, node, made, node_reasons
FROM luks_agent_newest
WHERE node_verdict = 'unknown'
ORDER BY account, region, node;
