-- The disks of the newest report of each node that reported in the last 30 days. The questions beside this file ask this view.
CREATE OR REPLACE VIEW luks_agent_newest AS
SELECT *
FROM (
  SELECT *, rank() OVER (PARTITION BY node, account, region ORDER BY made DESC) AS age
  FROM luks_agent_disks
  WHERE day >= CAST(CAST(current_date - INTERVAL '30' DAY AS DATE) AS VARCHAR)
)
WHERE age = 1;
