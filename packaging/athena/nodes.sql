-- How many nodes have which verdict? That of a node is that of its worst disk.
SELECT account, region, node_verdict, count(DISTINCT node) AS nodes
FROM luks_agent_newest
GROUP BY account, region, node_verdict
ORDER BY account, region, node_verdict;
