-- A row for each disk of each report. Put your bucket in both places.
CREATE EXTERNAL TABLE IF NOT EXISTS luks_agent_disks (
  made string,
  agent_version string,
  node string,
  instance_id string,
  instance_type string,
  host_name string,
  account string,
  region string,
  availability_zone string,
  ami string,
  node_verdict string,
  node_reasons string,
  device string,
  serial string,
  volume_id string,
  role string,
  role_because string,
  size bigint,
  content string,
  verdict string,
  reasons string,
  luks_uuid string,
  cipher string,
  key_size int,
  key_arn string,
  key_state string,
  formatted string,
  opened string,
  proven string,
  proven_by string,
  mounts string,
  blocks_read bigint,
  blocks_differ bigint
)
PARTITIONED BY (day string)
ROW FORMAT SERDE 'org.openx.data.jsonserde.JsonSerDe'
LOCATION 's3://amzn-s3-demo-bucket/luks-agent/rows/'
TBLPROPERTIES (
  'projection.enabled' = 'true',
  'projection.day.type' = 'date',
  'projection.day.format' = 'yyyy-MM-dd',
  'projection.day.range' = '2026-01-01,NOW',
  'storage.location.template' = 's3://amzn-s3-demo-bucket/luks-agent/rows/day=${day}/'
);
