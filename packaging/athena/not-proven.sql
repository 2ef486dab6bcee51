-- Which attached volumes were not shown to open for a week? A proof is kept until the node boots.
SELECT account, region, node, made, device, volume_id, proven, key_arn
FROM luks_agent_newest
WHERE verdict = 'encrypted'
  AND device IS NOT NULL
  AND (proven IS NULL OR proven < CAST(CAST(current_date - INTERVAL '7' DAY AS DATE) AS VARCHAR))
ORDER BY proven, account, region, node, device;
