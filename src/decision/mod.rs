//! The answer: route, authorise, reasons, identity headers, explanation, the policy's tests.
