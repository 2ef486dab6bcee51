"""valid_report.py SCHEMA REPORT: fails unless the report is as the JSON Schema says, and the schema says something."""

import json
import sys

import jsonschema

schema, report = (json.load(open(path)) for path in sys.argv[1:])
jsonschema.Draft202012Validator.check_schema(schema)
jsonschema.validate(report, schema, jsonschema.Draft202012Validator, format_checker=jsonschema.FormatChecker())
for wrong in ({**report, "verdict": "fine"}, {key: report[key] for key in report if key != "disks"}):
    try:
        jsonschema.validate(wrong, schema, jsonschema.Draft202012Validator)
    except jsonschema.ValidationError:
        continue
    sys.exit("the schema accepts anything")
