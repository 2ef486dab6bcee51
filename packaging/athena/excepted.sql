-- Which rules except disks, and how many?
SELECT role, reasons, count(*) AS disks, count(DISTINCT node) AS nodes, sum(size) AS bytes
FROM luks_agent_newest
WHERE verdict = 'excepted'
GROUP BY role, reasons
ORDER BY disks DESC, role, reasons;
