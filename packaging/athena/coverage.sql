-- How much is encrypted, in nodes, disks and bytes? What is excepted is not encrypted by luks-agent.
SELECT
  account,
  region,
  verdict,
  count(DISTINCT node) AS nodes,
  count(*) AS disks,
  sum(size) AS bytes
FROM luks_agent_newest
GROUP BY account, region, verdict
ORDER BY account, region, verdict;
