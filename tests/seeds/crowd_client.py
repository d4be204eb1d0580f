"""Many non-blocking clients at once, each at its own pace, some of which never say a word.

usage: crowd_client.py HOST PORT COUNT
"""
import selectors
import socket
import sys

host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
silent = [socket.create_connection((host, port)) for _ in range(count)]
selector = selectors.DefaultSelector()
for number in range(count):
    client = socket.socket()
    client.setblocking(False)
    client.connect_ex((host, port))
    question = "client {} says hello".format(number).encode()
    selector.register(client, selectors.EVENT_WRITE, [question, b""])

served = 0
while served < count:
    for key, events in selector.select(timeout=30) or sys.exit("nobody answers"):
        client, state = key.fileobj, key.data
        question, answer = state
        if events & selectors.EVENT_WRITE:
            sent = client.send(question[:5])
            state[0] = question[sent:]
            if not state[0]:
                selector.modify(client, selectors.EVENT_READ, [question, b""])
                client.shutdown(socket.SHUT_WR)
        else:
            piece = client.recv(7)
            state[1] = answer + piece
            if not piece:
                selector.unregister(client)
                client.close()
                text = state[1].decode()
                if not (text.startswith("CLIENT ") and text.endswith(" SAYS HELLO")):
                    sys.exit("a wrong answer: " + text)
                served += 1
print(served, "served while", len(silent), "were silent")
