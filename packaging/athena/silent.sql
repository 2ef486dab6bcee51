-- Which nodes reported in the last 30 days, but not since the day before yesterday? Ask EC2 which of them still exist.
SELECT account, region, node, max(made) AS last_report
FROM luks_agent_newest
GROUP BY account, region, node
HAVING max(made) < CAST(CAST(current_date - INTERVAL '2' DAY AS DATE) AS VARCHAR)
ORDER BY last_report, account, region, node;
