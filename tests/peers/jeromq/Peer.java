import org.zeromq.ZMQ;
import org.zeromq.ZMsg;
import org.zeromq.ZFrame;

/**
 * A client and a worker of MDP/0.1 with JeroMQ (RFC 7), for the acceptance tests:
 *
 *     java -cp jeromq.jar Peer.java client ENDPOINT SERVICE BODY…    prints each frame of the reply
 *     java -cp jeromq.jar Peer.java worker ENDPOINT SERVICE          prints "ready" and echoes
 *
 * Debian's JeroMQ has the mechanism NULL alone.
 */
public class Peer {
    public static void main(String[] words) {
        if (words[0].equals("client")) client(words);
        else worker(words[1], words[2]);
    }

    static void client(String[] words) {
        ZMQ.Context context = ZMQ.context(1);
        ZMQ.Socket socket = context.socket(ZMQ.REQ);
        socket.setReceiveTimeOut(10000);
        socket.setLinger(500);
        socket.connect(words[1]);
        ZMsg message = new ZMsg();
        message.add("MDPC01");
        message.add(words[2]);
        for (int n = 3; n < words.length; n++) message.add(words[n]);
        message.send(socket);
        ZMsg reply = ZMsg.recvMsg(socket);
        if (reply == null) System.exit(1);
        reply.pop();
        reply.pop();
        for (ZFrame frame : reply) System.out.println(frame.getData().length == 0 ? "" : new String(frame.getData()));
        socket.close();
        context.term();
    }

    static void say(ZMQ.Socket socket, int command, String service) {
        ZMsg message = new ZMsg();
        message.add("");
        message.add("MDPW01");
        message.add(new byte[] {(byte) command});
        if (service != null) message.add(service);
        message.send(socket);
    }

    static void worker(String endpoint, String service) {
        ZMQ.Context context = ZMQ.context(1);
        ZMQ.Socket socket = context.socket(ZMQ.DEALER);
        socket.setReceiveTimeOut(500);
        socket.connect(endpoint);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> Runtime.getRuntime().halt(0)));
        say(socket, 1, service);
        System.out.println("ready");
        while (true) {
            ZMsg message = ZMsg.recvMsg(socket);
            if (message == null) {
                say(socket, 4, null);
                continue;
            }
            message.pop();
            message.pop();
            ZFrame command = message.pop();
            if (command.getData()[0] != 2) continue;
            ZFrame address = message.pop();
            message.pop();
            ZMsg reply = new ZMsg();
            reply.add("");
            reply.add("MDPW01");
            reply.add(new byte[] {3});
            reply.add(address);
            reply.add("");
            for (ZFrame frame : message) reply.add(frame);
            reply.send(socket);
        }
    }
}
