//! A query that is answered. Asked for nothing in particular, a server that refuses is well, too.

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use tokio::net::UdpSocket;

use super::{Failed, socket};

pub(super) async fn ask(socket: &UdpSocket, name: Option<&str>) -> Result<(), Failed> {
    let id = crate::sys::random_u64().map_or(1, |random| u16::try_from(random >> 48).unwrap_or(1));
    let query = query(id, name).map_err(Failed::Unsent)?;
    let mut answer = socket::exchange(socket, &query).await?;
    loop {
        match judge(&answer, id, name.is_some()) {
            Some(verdict) => return verdict,
            // An answer to an earlier query from the same port.
            None => answer = socket::exchange(socket, &query).await?,
        }
    }
}

fn query(id: u16, name: Option<&str>) -> Result<Vec<u8>, String> {
    let (name, kind) = match name {
        Some(name) => (
            Name::from_ascii(name).map_err(|error| format!("name {name:?}: {error}"))?,
            RecordType::A,
        ),
        None => (Name::root(), RecordType::NS),
    };
    let mut message = Message::new();
    message
        .set_id(id)
        .set_message_type(MessageType::Query)
        .set_op_code(OpCode::Query)
        .set_recursion_desired(true)
        .add_query(Query::query(name, kind));
    message.to_vec().map_err(|error| error.to_string())
}

/// `None` if this is no answer to the query.
fn judge(answer: &[u8], id: u16, named: bool) -> Option<Result<(), Failed>> {
    let message = match Message::from_vec(answer) {
        Ok(message) => message,
        Err(error) => return Some(Err(Failed::Ill(format!("no DNS message: {error}")))),
    };
    if message.id() != id || message.message_type() != MessageType::Response {
        return None;
    }
    Some(match message.response_code() {
        ResponseCode::NoError | ResponseCode::NXDomain => Ok(()),
        ResponseCode::Refused if !named => Ok(()),
        code => Err(Failed::Ill(format!("answered {code}"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(id: u16, code: ResponseCode) -> Vec<u8> {
        let mut message = Message::from_vec(&query(id, None).unwrap()).unwrap();
        message
            .set_message_type(MessageType::Response)
            .set_response_code(code);
        message.to_vec().unwrap()
    }

    #[test]
    fn what_is_an_answer_and_what_is_a_good_one() {
        for (code, named, well) in [
            (ResponseCode::NoError, true, true),
            (ResponseCode::NXDomain, true, true),
            (ResponseCode::Refused, false, true),
            (ResponseCode::Refused, true, false),
            (ResponseCode::ServFail, false, false),
        ] {
            let verdict = judge(&answer(7, code), 7, named).unwrap();
            assert_eq!(verdict.is_ok(), well, "{code} named {named}");
        }
        assert!(judge(&answer(8, ResponseCode::NoError), 7, true).is_none());
        assert!(judge(&query(7, Some("shop.example.")).unwrap(), 7, true).is_none());
        assert!(judge(b"no", 7, true).unwrap().is_err());
        assert!(query(7, Some("a..b")).is_err());
    }
}
