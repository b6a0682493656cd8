"""Writes places.mmdb, the database of SteeringTests: pip install mmdb-writer netaddr; python make.py"""

from mmdb_writer import MMDBWriter
from netaddr import IPSet

writer = MMDBWriter(6, "GeoLite2-City", languages=["en"], description="six places", ipv4_compatible=True, float_type="f64")
for prefix, country, place in [
    ("203.0.113.0/26", "GB", (51.51, -0.13)),
    ("203.0.113.64/26", "US", (40.71, -74.01)),
    ("203.0.113.128/26", "BR", None),
    ("2001:db8:a::/48", "JP", (35.68, 139.69)),
    ("2001:db8:b::/48", "AU", (-33.87, 151.21)),
    ("2001:db8:c::/48", "IN", (919.0, 72.88)),
]:
    entry = {"country": {"iso_code": country}}
    if place:
        entry["location"] = {"latitude": place[0], "longitude": place[1]}
    writer.insert_network(IPSet([prefix]), entry)
writer.to_db_file("places.mmdb")
