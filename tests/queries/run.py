#!/usr/bin/env python3
"""Runs the queries for Athena in DuckDB, over rows in the layout of the bucket: run.py DIR_OF_ROWS DIR_OF_QUERIES KEY_ARN.

Prints one JSON object: the rows that each query returned, by its name.
"""

import json
import pathlib
import re
import sys

import duckdb

rows, queries, key = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]

# the table is external in Athena, and so not in the form of DuckDB; its columns are taken as they stand
table = (queries / "table.sql").read_text()
columns = dict(re.findall(r"^  (\w+) (string|int|bigint),?$", table, re.MULTILINE))
types = {"string": "VARCHAR", "int": "INTEGER", "bigint": "BIGINT"}
columns = ", ".join(f"'{name}': '{types[kind]}'" for name, kind in columns.items())

connection = duckdb.connect()
connection.execute(
    f"""CREATE VIEW luks_agent_disks AS SELECT * FROM read_json('{rows}/*/*.json', format = 'newline_delimited',
    hive_partitioning = true, hive_types = {{'day': VARCHAR}}, columns = {{{columns}}})"""
)
connection.execute((queries / "newest.sql").read_text())
found = {}
for file in sorted(queries.glob("*.sql")):
    if file.stem in ("table", "newest"):
        continue
    query = file.read_text()
    answer = connection.execute(query, [key] if "?" in re.sub("--.*", "", query) else [])
    names = [column[0] for column in answer.description]
    found[file.stem] = [dict(zip(names, row)) for row in answer.fetchall()]
json.dump(found, sys.stdout)
