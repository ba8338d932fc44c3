//! What is asked for again, and the packets by which a player tests its UDP path.
