-- Which nodes hold data in clear, on which disks, and why?
SELECT account, region, node, made, device, volume_id, role, size, content, reasons
FROM luks_agent_newest
WHERE verdict = 'not-encrypted'
ORDER BY account, region, node, device;
