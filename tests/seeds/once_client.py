"""The tutorials' one-shot client: sends one message, prints what it sent and what came back.

usage: once_client.py HOST PORT [MESSAGE]
"""
import socket
import sys

host, port = sys.argv[1], int(sys.argv[2])
message = sys.argv[3] if len(sys.argv) > 3 else "hello"
server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
try:
    server.connect((host, port))
    server.sendall((message + "\n").encode("utf-8"))
    received = b""
    while True:
        piece = server.recv(1024)
        if not piece:
            break
        received += piece
finally:
    server.close()
print("Sent:     {}".format(message))
print("Received: {}".format(received.decode("utf-8")))
