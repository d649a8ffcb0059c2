//! `CONNECT host:port` on an HTTP or TLS door: a tunnel under the same policy as those of the tunnel doors.
//!
//! Called by `mod` once the head is whole. What goes through the tunnel is the client's affair: nothing of this request (`Proxy-Authorization`
//! and all) is sent on. A refusal is an answer like any other, in S3's XML; the connection can carry a next request.

use std::rc::Rc;

use crate::http::{Method, RequestHead};
use crate::metrics::{self, TunnelDoor, TunnelRefusal};
use crate::s3::ErrorCode;
use crate::shard::Shard;

use super::failure::Failure;
use super::report::Report;
use super::tunnel::{self, Asked, Refused};
use super::{Connection, End, fail};

/// Opens the tunnel, says so, and leaves it in `connection`.
pub(super) async fn serve(
    shard: &Rc<Shard>,
    connection: &mut Connection,
    head: &RequestHead<'_>,
) -> End {
    let mut report = Report::begin(shard);
    report.operation = "Connect";
    let (host, port) = head.target.rsplit_once(':').unwrap_or((head.target, ""));
    let asked = Asked {
        door: TunnelDoor::Connect,
        client: connection.client.peer.address,
        begun: report.started(),
        host,
        port: port.parse().ok(),
    };
    let refused = match tunnel::open(shard, asked).await {
        Ok(tunnel) => {
            let sent = connection.client.send(ESTABLISHED, &[], false).await;
            report.head_sent(200);
            report.outcome = metrics::Outcome::Pass;
            report.finish_quietly(shard, Some(head));
            return match sent {
                Ok(()) => {
                    connection.tunnel = Some(Box::new(tunnel));
                    End::Tunnel
                }
                Err(gone) => {
                    tunnel.abandon(shard);
                    End::Gone(gone)
                }
            };
        }
        Err(refused) => refused,
    };
    let failure = failure(&refused);
    let mut out = std::mem::take(&mut connection.out);
    let what = (&failure, Method::Connect, "");
    let keep_alive = head.keep_alive;
    let answered = fail(
        shard,
        &connection.client,
        what,
        keep_alive,
        &mut report,
        &mut out,
    )
    .await;
    connection.out = out;
    report.finish_quietly(shard, Some(head));
    connection.quiet_since = crate::base::clock::Moment::now();
    End::of_refusal(answered, keep_alive)
}

/// RFC 9110, section 9.3.6: no `Content-Length`, no `Transfer-Encoding`; what follows is the tunnel.
const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

fn failure(refused: &Refused) -> Failure {
    if let Some(error) = &refused.error {
        return Failure::of_upstream(error);
    }
    match refused.reason {
        TunnelRefusal::Busy => Failure::slow_down("too many tunnels"),
        TunnelRefusal::Network => Failure::new(
            ErrorCode::AccessDenied,
            "tunnels are not for the network of this client",
        ),
        _ => Failure::new(
            ErrorCode::AccessDenied,
            "no tunnel leads to this destination",
        ),
    }
}
