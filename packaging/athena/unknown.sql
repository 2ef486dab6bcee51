-- Of which nodes does nothing show whether their disks are encrypted?
SELECT DISTINCT account, region, node, made, node_reasons
FROM luks_agent_newest
WHERE node_verdict = 'unknown'
ORDER BY account, region, node;
