"""A charging data function of python-diameter (https://pypi.org/project/python-diameter/).

    cdf.py PORT INTERIM_INTERVAL PEER [PEER ...]

accepts Accounting-Requests of base accounting from the named DiameterIdentities, answers each
with DIAMETER_SUCCESS and prints it as one line of JSON: the header's flags and every AVP as that
library's own dictionary decodes it. An AVP is [name, flags, value]; the value of a grouped AVP is
a list of AVPs, a Time is seconds since 1970, octets are text if they are UTF-8, hexadecimal
digits otherwise.
"""

import datetime
import json
import signal
import sys
import threading

from diameter.message import Message, constants
from diameter.message.avp import AvpGrouped
from diameter.node import Node
from diameter.node.application import SimpleThreadingApplication

REALM = "ringtoll.invalid"
PORT, INTERVAL, PEERS = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
LOCK = threading.Lock()

# A message that the library knows is turned into attributes, and `avps` then makes AVPs anew from
# these. What was received, in its order and with its flags, is kept beside it.
read_message = Message.from_bytes


def read_message_and_keep(data, plain_msg=False):
    message = read_message(data, plain_msg)
    message.received = read_message(data, plain_msg=True).avps
    return message


Message.from_bytes = staticmethod(read_message_and_keep)


def decoded(avp):
    if isinstance(avp, AvpGrouped):
        return [avp.name, avp.flags, [decoded(inner) for inner in avp.value]]
    value = avp.value
    if isinstance(value, datetime.datetime):
        value = value.timestamp()
    elif isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            value = value.hex()
    return [avp.name, avp.flags, value]


def handle(app, acr):
    record = {
        "is_retransmit": acr.header.is_retransmit,
        "is_proxyable": acr.header.is_proxyable,
        "avps": [decoded(avp) for avp in acr.received],
    }
    with LOCK:
        print(json.dumps(record), flush=True)
    aca = app.generate_answer(acr)
    aca.result_code = constants.E_RESULT_CODE_DIAMETER_SUCCESS
    aca.accounting_record_type = acr.accounting_record_type
    aca.accounting_record_number = acr.accounting_record_number
    aca.acct_application_id = constants.APP_DIAMETER_BASE_ACCOUNTING
    if INTERVAL > 0:
        aca.acct_interim_interval = INTERVAL
    return aca


node = Node("cdf." + REALM, REALM, ip_addresses=["127.0.0.1"], tcp_port=PORT,
            vendor_ids=[constants.VENDOR_TGPP])
peers = [node.add_peer(f"aaa://{peer}", REALM) for peer in PEERS]
application = SimpleThreadingApplication(constants.APP_DIAMETER_BASE_ACCOUNTING,
                                         is_acct_application=True, request_handler=handle)
node.add_application(application, peers)
node.start()
print("ready", flush=True)
signal.sigwait([signal.SIGTERM, signal.SIGINT])
