"""What an address that cannot be had is said to want."""

import socket

import pytest
from brigantine.errors import SettingsInvalid
from brigantine.preflight import preflight


def test_a_taken_address_and_one_of_another_machine_have_other_remedies():
    taken = socket.create_server(("127.0.0.1", 0))
    with taken, pytest.raises(SettingsInvalid, match="stop what listens there, or take another port"):
        preflight("127.0.0.1", taken.getsockname()[1])
    for host in ("203.0.113.5", "no-such-host.invalid"):  # RFC 5737 and RFC 2606: nobody has them
        with pytest.raises(SettingsInvalid, match=f"{host}:3000: .*take an address of this machine"):
            preflight(host, 3000)
