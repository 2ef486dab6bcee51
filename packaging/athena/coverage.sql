-- How much is encrypted, in disks and bytes? Only disks that are attached; what is excepted is not encrypted by luks-agent.
SELECT account, region, verdict, count(*) AS disks, sum(size) AS bytes
FROM luks_agent_newest
WHERE device IS NOT NULL
GROUP BY account, region, verdict
ORDER BY account, region, verdict;
